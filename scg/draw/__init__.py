"""Drawings of graphs in the style of Schulman et al. (2015), Figure 1: SVG, PNG, Mermaid and DOT."""

from scg.draw.files import svg, write
from scg.draw.text import dot, mermaid

__all__ = ["dot", "mermaid", "svg", "write"]
