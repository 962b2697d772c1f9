"""Numbers about finished runs: arms, paired differences, intervals, diversity.  Imports no torch."""
