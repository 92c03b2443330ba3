"""What host and helper say to each other: the job, the events, and how both become JSON."""
