"""The results of a run on disk: kept safe against kills, full disks and second processes.  Imports no torch."""
