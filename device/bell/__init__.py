"""The doorbell that a device is: it looks, answers, keeps what it saw, tells its owner, and takes
his word.
"""
