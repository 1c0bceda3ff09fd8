"""Campaigns: hundreds of crashes, unplugs, openings or faults, after each of which nothing may be left held."""
