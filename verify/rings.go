package verify

// rings are the vertices that lead back to themselves by edges on which the TTL is
// not counted: strongly connected components (Tarjan), without recursion.
func (g *graph) rings() (rings [][]*vertex) {
	n := len(g.nodes)
	low, num, on := make([]int, n), make([]int, n), make([]bool, n)
	var stack []*vertex
	type frame struct {
		v    *vertex
		next int
	}
	count := 0
	for _, start := range g.nodes {
		if num[start.index] != 0 {
			continue
		}
		calls := []frame{{start, 0}}
		for len(calls) > 0 {
			c := &calls[len(calls)-1]
			i := c.v.index
			if c.next == 0 {
				count++
				num[i], low[i], on[i] = count, count, true
				stack = append(stack, c.v)
			}
			if c.next < len(c.v.out) {
				e := c.v.out[c.next]
				c.next++
				to := e.to.index
				switch {
				case e.hop:
				case num[to] == 0:
					calls = append(calls, frame{e.to, 0})
				case on[to]:
					low[i] = min(low[i], num[to])
				}
				continue
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				up := calls[len(calls)-1].v.index
				low[up] = min(low[up], low[i])
			}
			if low[i] == num[i] {
				var ring []*vertex
				for {
					v := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					on[v.index] = false
					ring = append(ring, v)
					if v == c.v {
						break
					}
				}
				if len(ring) > 1 || ring[0].leadsToItself() {
					rings = append(rings, ring)
				}
			}
		}
	}
	return rings
}

func (v *vertex) leadsToItself() bool {
	for _, e := range v.out {
		if e.to == v && !e.hop {
			return true
		}
	}
	return false
}
