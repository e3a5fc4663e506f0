package storm

// Thresholds are the numbers that a verdict turns on; the zero value of a field
// means its default.
type Thresholds struct{}
