"""An evaluation as a terminal table, JSON, Markdown, CSV, a web page and a plot."""

from ft_eval.reports.files import read_evaluation, write_reports
from ft_eval.reports.terminal import print_report

__all__ = ["print_report", "read_evaluation", "write_reports"]
