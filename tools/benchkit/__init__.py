"""The benchmark: scsiusb compared with dd, sg_dd, plain pyusb and C, in one boot of the lab and natively."""
