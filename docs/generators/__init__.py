"""A file for each kind of page: functions from the package and its committed results to Markdown."""
