"""What a session tells of itself and of the hardware under it: health of GPUs, metrics.

Reads plain snapshots; nothing here is called on the way from a message to an order.
"""
