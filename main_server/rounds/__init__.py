"""The main server's half of a round, in the order of docs/reference/protocol.md.

    announcement   (step 2) a device hears what the open rounds ask of it
    opening        decide what the next round asks of everybody, and write it down
    seeds          say which of the sealed seeds open, before the cohort is frozen
    aggregation    (steps 6 and 7) unmask the one sum of the round, step, publish
    direct         the direct topology: keep plain updates; average them, step, publish
    publishing     what both topologies end with

In the secure topology nothing here ever sees a single device's update: what arrives is a sum over
at least `min_cohort` devices, and only the first sum of a round is taken.
"""
