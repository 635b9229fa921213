package placement

// A heap keeps items so that the first is at hand. It tells each item where it
// stands, so that one can be moved or taken out from the middle.
type heap[T any] struct {
	items []T
	less  func(a, b T) bool
	at    func(T) *int // where an item keeps its index in the heap; -1: it is not in it
}

// first returns the item in front, and false where there is none.
func (h *heap[T]) first() (item T, ok bool) {
	if len(h.items) == 0 {
		return item, false
	}
	return h.items[0], true
}

// fix puts an item where it belongs after a change, or in where it is new.
func (h *heap[T]) fix(item T) {
	i := *h.at(item)
	if i < 0 {
		i = len(h.items)
		h.items = append(h.items, item)
		*h.at(item) = i
	}
	if !h.up(i) {
		h.down(i)
	}
}

// remove takes an item out. It's no error if it isn't in.
func (h *heap[T]) remove(item T) {
	i := *h.at(item)
	if i < 0 {
		return
	}
	last := len(h.items) - 1
	h.swap(i, last)
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	*h.at(item) = -1
	if i < last && !h.up(i) {
		h.down(i)
	}
}

func (h *heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.at(h.items[i]), *h.at(h.items[j]) = i, j
}

func (h *heap[T]) up(i int) (moved bool) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			break
		}
		h.swap(i, parent)
		i, moved = parent, true
	}
	return moved
}

func (h *heap[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			return
		}
		if right := child + 1; right < len(h.items) && h.less(h.items[right], h.items[child]) {
			child = right
		}
		if !h.less(h.items[child], h.items[i]) {
			return
		}
		h.swap(i, child)
		i = child
	}
}
