"""What must be agreed to before data are downloaded."""

__all__ = ["COCO_LICENCE", "NSD_TERMS"]

NSD_TERMS = (
    "The Natural Scenes Dataset asks everyone who uses it to agree to its Terms and Conditions and to fill in its Data "
    "Access form. Both are on naturalscenesdataset.org: read them there, and fill in the form, before you download."
)
"""What NSD asks of its users. Its terms are on its site; they are not repeated here."""

COCO_LICENCE = (
    "COCO's annotations (captions) are published by the COCO Consortium under CC BY 4.0; cocodataset.org has its terms "
    "of use, and how to cite it."
)
"""Under which licence COCO's captions are."""
