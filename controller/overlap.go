package controller

import (
	"context"
	"time"

	"planck/flows"
	"planck/pipeline"
)

// overlap is how long a controller answers packets beside the earlier master of a
// switch, before it takes the role: what that was sent, and has not answered yet,
// the switch takes from it no more.
const overlap = 200 * time.Millisecond

// answerBeside gets the packets of a switch as one of several equals, and answers
// them, for as long as an earlier master may take for those that it has. It writes
// no flow. Some packets are answered twice. It returns errHandedOver when the host
// has become another's meanwhile, and errOutranked when a newer generation has the
// switch: the role EQUAL is given to any, also to who was cut off for long.
func (c *Controller) answerBeside(ctx context.Context, s *session, d *dispatcher, generation uint64) error {
	if _, only := c.opt.Cluster.(alone); only {
		return nil
	}
	_, newest, err := s.askRole(flows.RoleNoChange, 0)
	if err != nil {
		return err
	}
	if newest != noGeneration && newest > generation {
		return errOutranked
	}
	d.beside.Store(true)
	defer d.beside.Store(false)
	if err := s.takeRole(flows.RoleEqual, 0); err != nil {
		return err
	}
	if err := pause(ctx, overlap); err != nil {
		return err
	}
	if !c.opt.Cluster.Owns(d.r.target.name.Host) {
		return errHandedOver
	}
	return nil
}

// leaves reports whether a packet is not to be answered beside the earlier master:
// an answer to a part of a conversation would end it.
func (d *dispatcher) leaves(feature pipeline.FeatureID) bool {
	return d.beside.Load() && feature == pipeline.FeatureMetadata
}
