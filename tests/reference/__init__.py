"""Slow float64 twins and other oracles that the tests hold attnnet against."""
