"""What to know of a subject before numbers are believed: missing data, leaks between training and test, overlap."""

from unibrain.audit.audit import Audit, Finding, Neighbours, Pair, RegionVoxels, SessionVoxels
from unibrain.audit.examine import clip_embeddings, examine
from unibrain.audit.likeness import NEAR_DUPLICATE
from unibrain.audit.material import Material, material_of_subject
from unibrain.audit.nsd_material import NsdMaterial, material_of_tree
from unibrain.audit.own_material import own_betas
from unibrain.audit.store import audit_text, load_audit, save_audit

__all__ = [
    "NEAR_DUPLICATE",
    "Audit",
    "Finding",
    "Material",
    "Neighbours",
    "NsdMaterial",
    "Pair",
    "RegionVoxels",
    "SessionVoxels",
    "audit_text",
    "clip_embeddings",
    "examine",
    "load_audit",
    "material_of_subject",
    "material_of_tree",
    "own_betas",
    "save_audit",
]
