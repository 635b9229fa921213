//go:build !cgo && linux

package gpu

import (
	"context"
	"errors"
)

// openNVML says that this program has no NVML in it.
func openNVML(context.Context) (source, error) {
	return nil, errors.New("not built in: that takes cgo")
}
