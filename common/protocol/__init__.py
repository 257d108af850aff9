"""What crosses the boundary of a site: messages, their bytes, envelopes and enrolment."""
