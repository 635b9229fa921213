package gpu

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// xpuCard is what xpu-smi says of a card that never changes.
type xpuCard struct {
	name  string
	total schemas.Amount
}

// parseXPUCard reads the answer of "discovery -d … -j"; nothing is what it doesn't
// tell. Some versions write the size as a number, others as text.
func parseXPUCard(out []byte) xpuCard {
	var told struct {
		Name  string `json:"device_name"`
		Total any    `json:"memory_physical_size_byte"`
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	d.UseNumber()
	if d.Decode(&told) != nil {
		return xpuCard{}
	}
	c := xpuCard{name: told.Name}
	var digits string
	switch t := told.Total.(type) {
	case string:
		digits = t
	case json.Number:
		digits = t.String()
	}
	if n, err := strconv.ParseUint(digits, 10, 60); err == nil && n > 0 {
		c.total = schemas.Known(schemas.Bytes(n))
	}
	return c
}

// xpuStats is what xpu-smi measures.
type xpuStats struct {
	used                            schemas.Amount
	utilization, temperature, power *int
}

// parseXPUStats reads the answer of "stats -d … -j", which has memory in MiB. A
// card of several tiles may tell some things only of each.
func parseXPUStats(out []byte) xpuStats {
	type metric struct {
		Type  string   `json:"metrics_type"`
		Value *float64 `json:"value"`
	}
	var told struct {
		Device []metric `json:"device_level"`
		Tiles  []struct {
			Data []metric `json:"data_list"`
		} `json:"tile_level"`
	}
	if json.Unmarshal(out, &told) != nil {
		return xpuStats{}
	}
	metrics := told.Device
	if len(told.Tiles) == 1 {
		metrics = append(told.Tiles[0].Data, metrics...)
	}
	var s xpuStats
	for _, m := range metrics {
		if m.Value == nil || math.Abs(*m.Value) > 1e9 {
			continue
		}
		n := int(math.Round(*m.Value))
		switch m.Type {
		case "XPUM_STATS_MEMORY_USED":
			if n >= 0 {
				s.used = schemas.Known(schemas.Bytes(n) * schemas.MiB)
			}
		case "XPUM_STATS_GPU_UTILIZATION":
			s.utilization = percent(n)
		case "XPUM_STATS_GPU_CORE_TEMPERATURE":
			s.temperature = &n
		case "XPUM_STATS_POWER":
			s.power = &n
		}
	}
	return s
}
