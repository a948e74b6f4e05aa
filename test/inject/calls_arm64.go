package inject

// older are the calls that newer machines have no numbers for.
var older = map[int]kind{}
