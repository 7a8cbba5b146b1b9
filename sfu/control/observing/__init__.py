"""What the tables say of transports, tracks and subscriptions: statistics, scores, reasons. Control thread."""
