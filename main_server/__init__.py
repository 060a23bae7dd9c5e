"""The main server: opens rounds, unmasks sums over a cohort, steps the global model and gives it
back.
"""
