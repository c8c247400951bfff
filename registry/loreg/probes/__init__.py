"""What can be said of one adapter by itself: functions from an adapter to facts, for one push or for all versions."""
