"""Workflow templates (``*.json.template``)."""
