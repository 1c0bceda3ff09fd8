"""Campaigns: hundreds of crashes, unplugs and openings in the lab, after each of which nothing may be left."""
