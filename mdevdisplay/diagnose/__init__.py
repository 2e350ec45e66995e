"""Why a display is black: causes as data, probes that look for them, and a report with a verdict."""

from mdevdisplay.diagnose.causes import CAUSES, Cause, Ends
from mdevdisplay.diagnose.doctor import diagnose, diagnose_all, diagnose_host
from mdevdisplay.diagnose.report import Found, Report, State, Step

__all__ = ["CAUSES", "Cause", "Ends", "Found", "Report", "State", "Step", "diagnose", "diagnose_all", "diagnose_host"]
