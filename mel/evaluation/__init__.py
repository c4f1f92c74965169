"""How right rankings are: recall, intervals, breakdowns, calibration, NIL; and the mentions that are asked."""
