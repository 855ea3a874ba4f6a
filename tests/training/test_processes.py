"""Two processes with half the batch each take the steps of one process with the whole batch."""

import subprocess
import sys
from pathlib import Path

import torch

from unibrain.training.processes import average_gradients, join_processes, processes, rank

SCRIPT = """
import sys, torch
from unibrain.training.processes import average_gradients, join_processes, processes, rank
join_processes()
model = torch.nn.Linear(3, 2)
unused = torch.nn.Parameter(torch.ones(2))
with torch.no_grad():
    model.weight.copy_(torch.arange(6).view(2, 3) / 6)
    model.bias.zero_()
x = torch.linspace(-1, 1, 24).view(8, 3)
model(x.chunk(processes())[rank()]).square().mean().backward()
if rank() == 0:
    unused.grad = torch.ones(2)
average_gradients([*model.parameters(), unused])
if rank() == 0:
    torch.save([model.weight.grad, model.bias.grad, unused.grad, torch.tensor(processes())], sys.argv[1])
torch.distributed.destroy_process_group()
"""


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    script, found = tmp_path / "step.py", tmp_path / "gradients.pt"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(found)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    weight, bias, unused, count = torch.load(found, weights_only=True)
    assert int(count) == 2
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6).view(2, 3) / 6)
        model.bias.zero_()
    model(torch.linspace(-1, 1, 24).view(8, 3)).square().mean().backward()
    torch.testing.assert_close(weight, model.weight.grad)
    torch.testing.assert_close(bias, model.bias.grad)
    # Only one process had a gradient for it.
    torch.testing.assert_close(unused, torch.full((2,), 0.5))


def test_alone_there_is_one_process(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    join_processes()
    assert (processes(), rank()) == (1, 0)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]
