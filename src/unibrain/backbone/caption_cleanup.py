"""Taking repeats out of decoded captions."""

__all__ = ["remove_adjacent_repeats", "remove_repeated_phrases"]

OPENING = "([{<\"'"
CLOSING = ")]}>\"'.,;:!?"


def remove_adjacent_repeats(caption: str) -> str:
    """Keep one of equal neighbouring words; punctuation belongs to its word.

    Examples
    --------
    >>> remove_adjacent_repeats("a man man riding a wave")
    'a man riding a wave'
    """
    words = caption.split()
    return " ".join(word for index, word in enumerate(words) if index == 0 or word != words[index - 1])


def remove_repeated_phrases(caption: str) -> str:
    """Keep one of equal neighbouring phrases of any length; punctuation stands for itself and is put back.

    Examples
    --------
    >>> remove_repeated_phrases("a dog on a dog on a dog on a beach")
    'a dog on a beach'
    >>> remove_repeated_phrases("the red bus bus. the red bus")
    'the red bus. the red bus'
    """
    tokens = _split(caption)
    length = 1
    while 2 * length <= len(tokens):
        start = 0
        while start + 2 * length <= len(tokens):
            phrase = [text for text, _ in tokens[start : start + length]]
            if phrase == [text for text, _ in tokens[start + length : start + 2 * length]]:
                # The first of the two goes, together with the gap behind it; what follows keeps its own gap.
                first_gap = tokens[start][1]
                del tokens[start : start + length]
                tokens[start] = (tokens[start][0], first_gap)
            else:
                start += 1
        length += 1
    cleaned = "".join((" " if gap else "") + text for text, gap in tokens).strip()
    # Where punctuation went, words may have closed up to new ones that repeat.
    return cleaned if len(cleaned) >= len(" ".join(caption.split())) else remove_repeated_phrases(cleaned)


def _split(caption: str) -> list[tuple[str, bool]]:
    """Words and punctuation marks, each with whether a space stands before it."""
    tokens: list[tuple[str, bool]] = []
    for word in caption.split():
        head = len(word) - len(word.lstrip(OPENING))
        core = word[head:].rstrip(CLOSING)
        tail = word[head + len(core) :]
        parts = [*word[:head], *([core] if core else []), *tail]
        tokens += [(part, index == 0) for index, part in enumerate(parts)]
    return tokens
