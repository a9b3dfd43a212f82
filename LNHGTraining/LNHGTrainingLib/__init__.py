"""LNHG training and evaluation on LNHGLib."""
