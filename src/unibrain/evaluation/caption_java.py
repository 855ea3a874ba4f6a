"""The two Java programs of COCO's caption evaluation, whose jars come with the package ``pycocoevalcap``."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import UnavailableError

_JAVA = "run apt-get install default-jre-headless"
_PACKAGE = 'run pip install "unibrain[captions]"'


def _jar(name: str) -> tuple[str, Path]:
    """The Java program, and a jar of pycocoevalcap; `UnavailableError` names what is missing."""
    java, package = shutil.which("java"), find_spec("pycocoevalcap")
    missing = [hint for found, hint in ((java, _JAVA), (package, _PACKAGE)) if found is None]
    if java is None or package is None:
        raise UnavailableError(f"it needs Java and the package pycocoevalcap: {', and '.join(missing)}")
    file = Path(next(iter(package.submodule_search_locations or [""]))) / name
    if not file.is_file():
        raise UnavailableError(f"{file} is not there: run pip install --force-reinstall pycocoevalcap")
    return java, file


def _failed(program: str, why: str) -> Exception:
    last = (why.strip().splitlines() or ["it said nothing"])[-1]
    return UnavailableError(f"the Java program {program} failed ({last}): see whether java -version works")


def java_is_there() -> bool:
    """Whether Java and pycocoevalcap were found."""
    return shutil.which("java") is not None and find_spec("pycocoevalcap") is not None


def ptb_lines(captions: Sequence[str]) -> list[str]:
    """Tokenize captions with Stanford CoreNLP 3.4.1: one line per caption, lower case, tokens split by spaces."""
    java, jar = _jar("tokenizer/stanford-corenlp-3.4.1.jar")
    # Whatever CoreNLP takes as the end of a line would tear a caption in two.
    text = "".join(" ".join(caption.splitlines()) + "\n" for caption in captions)
    command = [java, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    lines = done.stdout.decode(errors="replace").split("\n")
    if done.returncode != 0 or len(lines) != len(captions) + 1:
        raise _failed("PTBTokenizer", done.stderr.decode(errors="replace"))
    return lines[:-1]


def meteor_java(
    decoded: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, NDArray[np.float64]]:
    """METEOR 1.5 (Denkowski and Lavie 2014) with ``-l en -norm``, from tokens: of the corpus, and of each image.

    The value of the corpus comes from summed statistics; it is not the mean over images, shape (n,). The program takes
    about 20 seconds to start, and 2 GB of memory. `UnavailableError` if Java or the package is not there.
    """
    java, jar = _jar("meteor/meteor-1.5.jar")
    command = [java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", cwd=jar.parent
        ) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None

        def ask(line: str) -> None:
            program.stdin.write(line + "\n")  # type: ignore[union-attr]
            program.stdin.flush()  # type: ignore[union-attr]

        try:
            statistics = []
            for caption, true in zip(decoded, references, strict=True):
                parts = [" ".join(tokens).replace("|||", "") for tokens in (*true, caption)]
                ask(" ||| ".join(["SCORE", *parts]))
                statistics.append(program.stdout.readline().strip())
            ask(" ||| ".join(["EVAL", *statistics]))
            values = [float(program.stdout.readline()) for _ in range(len(decoded) + 1)]
        except (OSError, ValueError) as error:
            errors.seek(0)
            raise _failed("METEOR 1.5", errors.read().decode(errors="replace") or str(error)) from error
        finally:
            program.kill()
            # What a program that has ended did not read cannot be written; leaving the block would raise for it again.
            with suppress(OSError):
                program.stdin.close()
    return values[-1], np.array(values[:-1])
