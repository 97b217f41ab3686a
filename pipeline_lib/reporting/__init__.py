"""From records to what people read: tables, figures, the offline report, and the check of what is claimed."""
