"""hub/ is a distribution of its own, which this environment need not have installed."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "hub"))

# These talk to JupyterHub and tornado by import. The environments of the hubs run them (test_hub_units.py); the rest of
# unit/ runs everywhere.
collect_ignore = (
    []
    if importlib.util.find_spec("jupyterhub")
    else [f"unit/test_hub_{name}.py" for name in ("authenticator", "doors", "keys", "selfcheck")]
)
