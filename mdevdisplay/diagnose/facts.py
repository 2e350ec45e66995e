"""A report as it stands in JSON."""

from __future__ import annotations

from typing import Any

from mdevdisplay.diagnose.report import Report

__all__ = ["report_facts"]


def report_facts(report: Report) -> dict[str, Any]:
    """Return a report as it stands in JSON."""
    return {
        "locator": report.locator,
        "verdict": report.verdict,
        "cause": report.cause,
        "exit_status": report.exit_status,
        "steps": [
            {"name": step.name, "state": step.state.value, "evidence": step.evidence, "causes": step.causes}
            for step in report.steps
        ],
        "findings": [
            {
                "cause": found.cause,
                "step": found.step,
                "evidence": found.evidence,
                "remedy": found.remedy,
                "source": found.source,
            }
            for found in report.findings
        ],
        "left_out": report.left_out,
    }
