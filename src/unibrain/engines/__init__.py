"""Where shards are done: on this machine, on a Dask cluster, or by SLURM. `ENGINES` is the table of them.

An engine hands out names of shards, and no more: workers read the plan, and write results and records, in the run
folder, which all of them see. What is done is what has a record there.
"""

from unibrain.engines.table import ENGINES, engine_of

__all__ = ["ENGINES", "engine_of"]
