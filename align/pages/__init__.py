"""What is looked at: report, gallery, contact sheet and drawings, from the numbers of ``analysis``."""
