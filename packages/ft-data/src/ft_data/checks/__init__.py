"""Checking rows beyond what keeps them from being loaded: what a person should look at before training on them."""

from ft_data.checks.findings import Finding
from ft_data.checks.report import CheckReport, check, describe

__all__ = ["CheckReport", "Finding", "check", "describe"]
