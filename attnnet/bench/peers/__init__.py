"""The systems that attnnet is measured against. None is needed to use attnnet."""
