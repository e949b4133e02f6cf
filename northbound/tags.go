package northbound

import (
	"errors"
	"net/http"
	"slices"

	"planck/network"
)

// Limits of the tags of a resource.
const (
	tagSize  = 255
	tagsMost = 50
)

var tagsExtensions = []extension{
	{"standard-attr-tag", "Tag support for resources with standard attributes", "Enables to set tag on resources with standard attribute.", "2017-01-01T00:00:00-00:00"},
	{"tag", "Tag support", "Enables to set tag on resources.", "2016-01-01T00:00:00-00:00"},
	{"tag-ext", "Tag support for more resources", "Extends tag support to more L2 and L3 resources.", "2017-01-01T00:00:00-00:00"},
	{"tag-creation", "Tag creation extension", "Allow to create multiple tags for a resource", "2024-07-23T10:00:00-00:00"},
}

// tagAttributes are the tags of an object and the filters by them.
func tagAttributes[T any](of func(*T) *network.Standard, flags ability) []attribute[T] {
	tags := stringsKind(tagSize)
	var shown attribute[T]
	if flags == 0 {
		shown = derived("tags", tags, flags, func(_ *reader, o *T) []string { return of(o).Tags })
	} else {
		shown = field("tags", tags, flags, func(o *T) *[]string { return &of(o).Tags })
	}
	shown.flags |= filterable
	shown.match = matchTags(of, hasAll)
	return []attribute[T]{
		shown,
		filterOnly("tags-any", matchTags(of, hasAny)),
		filterOnly("not-tags", matchTags(of, func(has, wanted []string) bool { return !hasAll(has, wanted) })),
		filterOnly("not-tags-any", matchTags(of, func(has, wanted []string) bool { return !hasAny(has, wanted) })),
	}
}

const tagNotFoundType = "TagNotFound"

func tagNotFound(tag string) error {
	return network.Errorf(network.NotFound, tagNotFoundType, "Tag %s could not be found.", tag)
}

func (c *call) checkTag() error {
	if _, err := parseText(c.tag, tagSize); err != nil {
		return invalidInput("%s", err)
	}
	return nil
}

func (c *call) tagsOfBody() ([]string, error) {
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	raw, ok := body["tags"]
	if !ok {
		return nil, invalidInput("Invalid tags body")
	}
	tags, err := stringsKind(tagSize).parse(raw)
	if err != nil {
		return nil, invalidInput("%s", err)
	}
	return tags, nil
}

func encodeTags(tags []string) []byte {
	return append(appendList([]byte(`{"tags": `), tags, appendString), '}')
}

// taggedFor finds the object whose tags are read and asks the rule for it.
func (rs *resource[T]) taggedFor(r *reader, action, id string) (*T, error) {
	o, err := rs.find(r, id)
	if err != nil {
		return nil, err
	}
	rule := action + "_" + rs.name + ":tags"
	if r.policy.has(rule) && !r.policy.allows(rule, r.who, rs.target(r.view, o)) {
		return nil, notAuthorized("rule:" + rule)
	}
	return o, nil
}

// tagsError names an object that is not there as Neutron does where it is asked
// about tags.
func (rs *resource[T]) tagsError(id string, err error) error {
	e, ok := errors.AsType[*network.Error](err)
	if !ok || e.Class != network.NotFound || e.Type == tagNotFoundType {
		return err
	}
	return network.Errorf(network.NotFound, "TagResourceNotFound", "Resource %s %s could not be found.", rs.collection, id)
}

func (rs *resource[T]) readTags(c *call) ([]string, error) {
	o, err := rs.taggedFor(c.reader(c.server.store.View()), "get", c.id)
	if err != nil {
		return nil, rs.tagsError(c.id, err)
	}
	return rs.standard(o).Tags, nil
}

func (rs *resource[T]) listTags(c *call) (int, []byte, error) {
	tags, err := rs.readTags(c)
	return http.StatusOK, encodeTags(tags), err
}

func (rs *resource[T]) showTag(c *call) (int, []byte, error) {
	if err := c.checkTag(); err != nil {
		return 0, nil, err
	}
	tags, err := rs.readTags(c)
	if err == nil && !slices.Contains(tags, c.tag) {
		err = tagNotFound(c.tag)
	}
	return http.StatusNoContent, nil, err
}

// changeTags replaces the tags of the object that the path names by what fn
// makes of them.
func (rs *resource[T]) changeTags(c *call, action string, fn func(tags []string) ([]string, error)) ([]string, error) {
	var after []string
	_, err := rs.modifyOnly(c, action+"_"+rs.name+"_tags", func(ch *change, _ *T) error {
		old, err := rs.taggedFor(ch.r, action, c.id)
		if err != nil {
			return err
		}
		before := rs.standard(old).Tags
		if after, err = fn(slices.Clone(before)); err != nil || slices.Equal(before, after) {
			return err
		}
		if len(after) > tagsMost {
			return badResource(rs.collection, "The number of tags exceed the per-resource limit of %d", tagsMost)
		}
		o := rs.clone(old)
		rs.standard(o).Tags = after
		return rs.update(ch, o, old)
	})
	return after, rs.tagsError(c.id, err)
}

func (rs *resource[T]) replaceTags(c *call) (int, []byte, error) {
	tags, err := c.tagsOfBody()
	if err != nil {
		return 0, nil, err
	}
	slices.Sort(tags)
	after, err := rs.changeTags(c, "update", func([]string) ([]string, error) { return tags, nil })
	return http.StatusOK, encodeTags(after), err
}

func (rs *resource[T]) addTags(c *call) (int, []byte, error) {
	tags, err := c.tagsOfBody()
	if err != nil {
		return 0, nil, err
	}
	after, err := rs.changeTags(c, "create", func(before []string) ([]string, error) { return withTags(before, tags), nil })
	return http.StatusOK, encodeTags(after), err
}

func (rs *resource[T]) putTag(c *call) (int, []byte, error) {
	if err := c.checkTag(); err != nil {
		return 0, nil, err
	}
	_, err := rs.changeTags(c, "update", func(before []string) ([]string, error) {
		return withTags(before, []string{c.tag}), nil
	})
	return http.StatusCreated, nil, err
}

func withTags(before, more []string) []string {
	after := append(before, more...)
	slices.Sort(after)
	return slices.Compact(after)
}

func (rs *resource[T]) deleteTag(c *call) (int, []byte, error) {
	if err := c.checkTag(); err != nil {
		return 0, nil, err
	}
	_, err := rs.changeTags(c, "delete", func(before []string) ([]string, error) {
		i := slices.Index(before, c.tag)
		if i < 0 {
			return nil, tagNotFound(c.tag)
		}
		return slices.Delete(before, i, i+1), nil
	})
	return http.StatusNoContent, nil, err
}

func (rs *resource[T]) deleteTags(c *call) (int, []byte, error) {
	_, err := rs.changeTags(c, "delete", func([]string) ([]string, error) { return nil, nil })
	return http.StatusNoContent, nil, err
}
