"""Rehearsal: the same engine on scripted facts and targets, before anything acts for real."""
