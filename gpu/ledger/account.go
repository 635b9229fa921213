package ledger

import "github.com/vramjet/vramjet/schemas"

// An Account is how the memory of a device is divided.
type Account struct {
	Ours   schemas.Amount // what the node's models hold, measured where that can be told
	Others schemas.Amount // what anybody else holds

	// Promised is what loads have not taken yet.
	Promised schemas.Bytes

	// Available is what a load may take: what is free less a margin for safety. It's
	// unknown where neither what is free nor a total is known.
	Available schemas.Amount

	// Lacking is what must come free first before Available is more than 0.
	Lacking schemas.Bytes
}

// Account says how the memory of a device is divided. Of a device that was never
// observed, nothing is known.
func (l *Ledger) Account(device string) Account {
	r, ok := l.reading(device)
	if !ok {
		return Account{}
	}
	open, arrived := l.open(r)
	books := l.booked(device) + l.draining(device)
	a := Account{Ours: schemas.Known(books), Others: l.others[device], Promised: open.Minus(arrived)}
	if r.Held.Known {
		a.Ours = r.Held
		books += l.beside[device]
	}
	if r.Error != "" { // nothing that comes free makes it fit
		a.Available, a.Lacking = schemas.Known(0), max(r.Total.Bytes, schemas.GiB)
		return a
	}
	margin := schemas.SafetyMargin(r.Total)
	if r.Total.Known {
		a.bound(r.Total.Bytes, r.Reserved.Bytes+a.Others.Bytes+books+max(open, arrived)+margin)
	}
	if r.Free.Known {
		a.bound(r.Free.Bytes, a.Promised+margin)
	}
	return a
}

// bound takes in that a load may take no more than has less spent.
func (a *Account) bound(has, spent schemas.Bytes) {
	if left := has.Minus(spent); !a.Available.Known || left < a.Available.Bytes {
		a.Available = schemas.Known(left)
	}
	a.Lacking = max(a.Lacking, spent.Minus(has))
}

// booked is what the models in memory hold of a device.
func (l *Ledger) booked(device string) schemas.Bytes {
	var sum schemas.Bytes
	for _, held := range l.residents {
		sum += held[device]
	}
	return sum
}

// draining is what models that are gone have not given back yet.
func (l *Ledger) draining(device string) schemas.Bytes {
	var sum schemas.Bytes
	for _, d := range l.drains {
		if d.device == device {
			sum += d.bytes
		}
	}
	return sum
}

// open is what is kept for loads on a device, and how much of it can be seen to have
// arrived there.
func (l *Ledger) open(r Reading) (open, arrived schemas.Bytes) {
	for _, x := range l.reservations {
		open += x.plan[r.ID]
		arrived += x.arrived(r)
	}
	return open, arrived
}

// arrived is how much of a load can be seen on a device: what the node's own servers
// hold more than when it began. It's 0 where nobody can tell whose memory is whose.
func (x *reservation) arrived(r Reading) schemas.Bytes {
	before, began := x.before[r.ID]
	if !began || !before.Held.Known || !r.Held.Known {
		return 0
	}
	return min(x.plan[r.ID], r.Held.Bytes.Minus(before.Held.Bytes))
}

// Grown is what the devices show more than when a load began: what it took, once it
// has ended. sure is that nothing else can have made the difference: it is told whose
// memory is whose, and no other model of the node went meanwhile. Where a device
// tells nothing, so does Grown: nil.
func (l *Ledger) Grown(v schemas.Victim) (grown Plan, sure bool) {
	x := l.reservations[v]
	if x == nil || x.before == nil {
		return nil, false
	}
	grown, sure = Plan{}, !x.disturbed
	for device, before := range x.before {
		r, ok := l.reading(device)
		switch {
		case !ok:
			return nil, false
		case r.Held.Known && before.Held.Known:
			grown.add(r.ID, r.Held.Bytes.Minus(before.Held.Bytes))
		case r.Used.Known && before.Used.Known:
			grown.add(r.ID, r.Used.Bytes.Minus(before.Used.Bytes))
			sure = false
		default:
			return nil, false
		}
	}
	return grown, sure
}

// progress is how much of a load can be seen on the devices, and unknown where one of
// these does not tell.
func (l *Ledger) progress(x *reservation) schemas.Amount {
	sum := schemas.Known(0)
	for device, before := range x.before {
		r, ok := l.reading(device)
		if !ok || !before.Held.Known || !r.Held.Known {
			return schemas.Amount{}
		}
		sum.Bytes += r.Held.Bytes.Minus(before.Held.Bytes)
	}
	return sum
}

// Spaces is what a load may take of devices. Those that were never observed are left
// out.
func (l *Ledger) Spaces(devices []string) []Space {
	spaces := make([]Space, 0, len(devices))
	for _, d := range devices {
		if r, ok := l.reading(d); ok {
			a := l.Account(d)
			spaces = append(spaces, Space{Device: d, Kind: r.Kind, Free: a.Available, Lacking: a.Lacking})
		}
	}
	return spaces
}
