"""What to know of a subject before numbers are believed: missing data, leaks between training and test, overlap."""

from unibrain.audit.audit import Audit, Finding, load_audit, save_audit
from unibrain.audit.examine import Material, audit_nsd, examine

__all__ = ["Audit", "Finding", "Material", "audit_nsd", "examine", "load_audit", "save_audit"]
