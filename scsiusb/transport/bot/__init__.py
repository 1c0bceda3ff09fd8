"""Bulk-Only Transport (USB Mass Storage Class, BOT 1.0)."""
