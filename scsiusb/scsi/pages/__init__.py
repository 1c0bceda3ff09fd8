"""Replies of INQUIRY, vital product data and mode pages, typed."""
