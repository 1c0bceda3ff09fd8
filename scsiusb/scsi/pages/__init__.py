"""Typed replies: INQUIRY data, vital product data pages and mode pages."""
