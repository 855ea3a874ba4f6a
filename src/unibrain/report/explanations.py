"""What each score means, in words for somebody who meets it for the first time."""

from dataclasses import dataclass

__all__ = ["EXPLANATIONS", "Explanation", "limits_of"]


@dataclass(frozen=True)
class Explanation:
    """Words for one score.

    Attributes
    ----------
    short : str
        Name for narrow places.
    question : str
        The question that the score answers, in the score table.
    reading : str
        How to read its value.
    """

    short: str
    question: str
    reading: str


EXPLANATIONS = {
    "pixcorr": Explanation(
        "PixCorr",
        "Do light and colour fall in the same places?",
        "Pearson's correlation of all pixel values of the two pictures. 1: the same up to brightness and contrast; "
        "0: unrelated. Layout and background matter most, what is shown matters little.",
    ),
    "ssim": Explanation(
        "SSIM",
        "Is the local structure alike?",
        "Structural similarity of the grey pictures in small windows. 1: identical; near 0: unrelated. "
        "Two smooth pictures already score some, so compare it with the control.",
    ),
    "two_way_picture": Explanation(
        "2-way picture",
        "Is it closer to its own picture than to another one?",
        "A network trained elsewhere (EfficientNet-lite0 on ImageNet photographs) compares each decoded picture with "
        "the picture that was seen and with every other one. The score is the share of comparisons that its own "
        "picture wins. Guessing gives 50 %.",
    ),
    "meteor": Explanation(
        "METEOR",
        "Does it use the same words, or synonyms, in the same order?",
        "Words of the decoded caption that match the best true caption: the same word, the same stem or a synonym "
        "(WordNet), with a penalty for scattered order. 1: the same sentence; 0: nothing in common.",
    ),
    "rouge1": Explanation(
        "ROUGE-1",
        "How many words do they share?",
        "Overlap of single words (F measure) with the best true caption. Little words such as “a” count too, "
        "so compare it with the control.",
    ),
    "rougeL": Explanation(
        "ROUGE-L",
        "How long is the sequence of words they share?",
        "Longest common subsequence of words (F measure) with the best true caption. The same words in another order "
        "score less than in ROUGE-1.",
    ),
    "two_way_caption": Explanation(
        "2-way caption",
        "Is it closer to its own captions than to another image's?",
        "The backbone's CLIP compares each decoded caption with the true captions of its image and with those of every "
        "other image. The score is the share of comparisons that its own image wins. Guessing gives 50 %.",
    ),
}


def limits_of(images: int, simulated: bool) -> tuple[str, ...]:
    """Limits that hold for every run.

    Parameters
    ----------
    images : int
        Number of decoded images.
    simulated : bool
        Whether the scans were simulated.

    Returns
    -------
    tuple of str
        One sentence or two each.
    """
    simulation = (
        "The scans are simulated. The numbers show that every step works together; they are no evidence about brains, "
        "and cannot be compared with published results.",
    )
    return (
        *(simulation if simulated else ()),
        "The diffusion model always answers with something that looks like a picture and reads like a sentence. "
        "Plausible is not the same as right: look at the worst images too, and at the control column.",
        f"One subject and {images} images. Another subject needs scans and regressions of their own; "
        "nothing here decodes a person who did not take part for hours.",
        "Two-way identification only asks for “closer than one other image”. A high share can go with "
        "wrong objects, above all if the images differ much from each other.",
        "METEOR is nltk's and SSIM is two-dimensional; papers that use other programs for them report other scales.",
    )
