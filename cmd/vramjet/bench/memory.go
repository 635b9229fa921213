package bench

import (
	"fmt"
	"os"
	"runtime"
)

// residentMemory is what this process has, in bytes: where the system does not say, what
// Go has taken for it.
func residentMemory() int64 {
	var size, resident int64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err := fmt.Sscan(string(text), &size, &resident); err == nil {
			return resident * int64(os.Getpagesize())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased) //nolint:gosec // an amount of memory
}
