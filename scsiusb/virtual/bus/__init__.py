"""The virtual bus: a USB backend whose devices are virtual sticks."""
