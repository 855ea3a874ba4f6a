"""The score table for a terminal."""

from unibrain.evaluation.scores import Score, Scores

__all__ = ["format_table"]

_HEADINGS = {"picture": "Pictures", "caption": "Captions"}


def format_table(scores: Scores) -> str:
    """Lay out scores as text: value, shuffled control, number of images, and which direction is better.

    Parameters
    ----------
    scores : Scores

    Returns
    -------
    str
        Lines without a closing line break. The first says so if the scans were simulated.

    Examples
    --------
    >>> score = Score("ssim", "SSIM", "picture", 0.41, 0.2, 120, True)
    >>> print(format_table(Scores((score,), (), (), simulated=False)))
    Pictures           score  control  images
      SSIM  (higher)   0.410    0.200     120
    """
    labels = {
        score.name: f"  {score.title}  ({'higher' if score.higher_is_better else 'lower'})" for score in scores.scores
    }
    width = max((len(label) for label in labels.values()), default=0)
    lines = ["SIMULATED SCANS: no human was scanned for these numbers.", ""] if scores.simulated else []
    columns = f"{'score':>8}{'control':>9}{'images':>8}"
    notes: list[str] = []
    for about, heading in _HEADINGS.items():
        group = [score for score in scores.scores if score.about == about]
        if group:
            lines.append(f"{heading:<{width}}{columns}")
            columns = ""
        for score in group:
            mark = ""
            if score.note:
                known = [note.partition(" ")[2] for note in notes]
                if score.note not in known:
                    notes.append(f"[{len(notes) + 1}] {score.note}")
                    known.append(score.note)
                mark = f" [{known.index(score.note) + 1}]"
            lines.append(
                f"{labels[score.name]:<{width}}{_cell(score.value, 8)}{_cell(score.control, 9)}{score.images:>8}{mark}"
            )
    lines = [line.rstrip() for line in lines]
    if any(_is_two_way(score) for score in scores.scores):
        lines += ["", "Control: decoded items shuffled against the images. Two-way identification: chance is 0.5."]
    elif scores.scores and notes:
        lines.append("")
    return "\n".join(lines + notes)


def _is_two_way(score: Score) -> bool:
    return score.name.startswith("two_way")


def _cell(value: float | None, width: int) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>{width}}"
