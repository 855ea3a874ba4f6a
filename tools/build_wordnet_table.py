"""Build the synonym table of the scene world's vocabulary from the full WordNet 3.0.

Needs Debian's ``wordnet-base``. Run it again when the vocabulary of the scene world has changed:

    python tools/build_wordnet_table.py
"""

import json
from collections.abc import Iterable
from pathlib import Path

from unibrain.evaluation.wordnet import DEBIAN_FOLDER, full_wordnet, synonym_names, words_of
from unibrain.workspace.files import write_text

DATA = Path(__file__).resolve().parents[1] / "src" / "unibrain" / "evaluation" / "data"


def table_of(vocabulary: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Synonyms of every word of a vocabulary; empty for those that WordNet does not have."""
    wordnet = full_wordnet(DEBIAN_FOLDER)
    if wordnet is None:
        raise SystemExit("the full WordNet is not installed: run apt-get install wordnet-base")
    # Entries of the vocabulary are split as METEOR splits captions ("t-shirt" stays, "man's" becomes two).
    words = sorted({word for entry in vocabulary for word in words_of(entry) if any(map(str.isalnum, word))})
    return {word: synonym_names(wordnet, word) for word in words}


def licence_text() -> str:
    """WordNet's licence, from the head of its own data file."""
    lines = []
    for line in (DEBIAN_FOLDER / "data.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            break
        lines.append(line[2:].split(" ", 1)[1].rstrip())
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    """Write the table and the licence beside each other."""
    from unibrain.demo import vocabulary

    table = table_of(vocabulary())
    rows = ",\n".join(f" {json.dumps(word)}: {json.dumps(names)}" for word, names in table.items())
    head = "one-word synonyms of the scene world's vocabulary, derived from WordNet 3.0; licence: LICENSE-WORDNET.txt"
    write_text(DATA / "wordnet-synonyms.json", f'{{"about": {json.dumps(head)},\n"synonyms": {{\n{rows}\n}}}}\n')
    notice = (
        "wordnet-synonyms.json in this folder is derived from WordNet 3.0 by Princeton University. It lists, for each\n"
        "word of the scene world's vocabulary, the one-word members of all synsets of that word. WordNet's licence:\n\n"
    )
    write_text(DATA / "LICENSE-WORDNET.txt", notice + licence_text())
    print(f"{len(table)} words, {sum(map(bool, table.values()))} with synonyms, in {DATA}")


if __name__ == "__main__":
    main()
