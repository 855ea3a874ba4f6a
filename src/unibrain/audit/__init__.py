"""What to know of a subject before numbers are believed: missing data, leaks between training and test, overlap."""

from unibrain.audit.audit import Audit, load_audit, save_audit
from unibrain.audit.examine import audit_nsd, examine
from unibrain.audit.findings import Finding
from unibrain.audit.material import Material

__all__ = ["Audit", "Finding", "Material", "audit_nsd", "examine", "load_audit", "save_audit"]
