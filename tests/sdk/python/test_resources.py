"""Session resources, outputs and files in messages: checklist 68, 70, 71, 72, 74, 78, 141."""

import anthropic

from harness import TOOLSET, Case, call, only, text, within

AGENT = {"agent_fields": {"tools": [TOOLSET]}}


def given(file, path=None):
    return {"type": "file", "file_id": file.id, **({"mount_path": path} if path else {})}


def refers(kind, file):
    return {"type": kind, "source": {"type": "file", "file_id": file.id}}


class Resources(Case):
    def put(self, name="a.txt", content=b"hello"):
        return self.beta.files.upload(file=(name, content))

    def said(self, session):
        """What the last command said."""
        return only(self.events(session), "agent.tool_result")[-1].content[0].text.strip()

    def run_next(self, session):
        self.beta.sessions.events.send(session.id, events=[text("go on")])
        self.settled(session)
        return self.said(session)

    def test_70_a_file_lands_read_only_below_uploads_with_a_new_id(self):
        file = self.put()
        look = call("bash", command="cat /mnt/session/uploads/data.csv; echo x >> /mnt/session/uploads/data.csv || echo refused")
        session = self.session(look, {"text": "done"}, message="go", resources=[given(file, "/data.csv")], **AGENT)
        [resource] = session.resources
        self.assertEqual((resource.type, resource.mount_path), ("file", "/mnt/session/uploads/data.csv"))
        self.assertTrue(resource.id.startswith("sesrsc_"))
        self.assertNotEqual(resource.file_id, file.id)
        own = self.beta.files.retrieve_metadata(resource.file_id)
        self.assertEqual((own.filename, own.size_bytes, own.scope.id), ("a.txt", 5, session.id))
        self.settled(session)
        self.assertTrue(self.said(session).startswith("hello"), self.said(session))
        self.assertTrue(self.said(session).endswith("refused"), self.said(session))

    def test_71_without_a_path_it_is_named_after_its_id(self):
        file = self.put()
        session = self.session(resources=[given(file)])
        self.assertEqual(session.resources[0].mount_path, f"/mnt/session/uploads/{file.id}")

    def test_72_files_come_and_go_while_a_session_lives(self):
        look = call("bash", command="cat /mnt/session/uploads/later || true")
        turns = [look, {"text": "done"}, look, {"text": "done"}]
        session = self.session(*turns, **AGENT)
        resources = self.beta.sessions.resources
        file = self.put(content=b"later")
        added = resources.add(session.id, type="file", file_id=file.id, mount_path="/later")
        self.beta.files.delete(file.id)
        self.assertEqual(self.run_next(session), "later")
        self.assertEqual(resources.retrieve(added.id, session_id=session.id), added)
        deleted = resources.delete(added.id, session_id=session.id)
        self.assertEqual((deleted.id, deleted.type), (added.id, "session_resource_deleted"))
        self.assertIn("No such file", self.run_next(session))
        self.refused(anthropic.NotFoundError, resources.retrieve, added.id, session_id=session.id)
        for kind in ("github_repository", "memory_store"):
            self.refused(anthropic.BadRequestError, resources.add, session.id, type=kind, file_id="file_x")

    def test_74_a_file_has_no_token(self):
        session = self.session(resources=[given(self.put())])
        update = self.beta.sessions.resources.update
        id = session.resources[0].id
        message = self.refused(
            anthropic.BadRequestError, update, id, session_id=session.id, authorization_token="t"
        )
        self.assertTrue(message.startswith("authorization_token: "), message)

    def test_78_a_list_without_a_limit_has_all(self):
        file = self.put()
        session = self.session(resources=[given(file, f"/{n}") for n in range(30)])
        resources = self.beta.sessions.resources
        page = resources.list(session.id)
        self.assertEqual((page.data, page.next_page), (session.resources, None))
        self.assertEqual(list(resources.list(session.id, limit=7)), session.resources)

    def test_141_outputs_are_files_of_the_session(self):
        work = "cd /mnt/session/outputs && mkdir deep && printf 'a\\0b' > deep/x.bin && echo n,m > t.csv"
        session, _ = self.finished(call("bash", command=work), {"text": "done"}, **AGENT)
        files = {file.filename: file for file in self.beta.files.list(scope_id=session.id)}
        self.assertEqual(set(files), {"x.bin", "t.csv"})
        self.assertEqual({file.downloadable for file in files.values()}, {True})
        self.assertEqual(files["t.csv"].mime_type, "text/csv")
        self.assertEqual(self.beta.files.download(files["x.bin"].id).read(), b"a\0b")

    def test_68_a_deleted_session_takes_its_files_along_and_no_others(self):
        file = self.put()
        work = call("bash", command="echo x > /mnt/session/outputs/x")
        session, _ = self.finished(work, {"text": "done"}, resources=[given(file)], **AGENT)
        own = list(self.beta.files.list(scope_id=session.id))
        self.assertEqual(len(own), 2)
        self.beta.sessions.delete(session.id)
        self.assertEqual(list(self.beta.files.list(scope_id=session.id)), [])
        for gone in own:
            self.refused(anthropic.NotFoundError, self.beta.files.retrieve_metadata, gone.id)
        self.assertEqual(self.beta.files.retrieve_metadata(file.id), file)

    def test_files_in_messages_are_echoed_as_they_were_sent(self):
        picture, notes = self.put("p.png", b"\x89PNG"), self.put("n.md")
        content = [{"type": "text", "text": "look"}, refers("image", picture), refers("document", notes)]
        session = self.session({"text": "seen"}, {"text": "seen"})
        events = self.beta.sessions.events
        events.send(session.id, events=[{"type": "user.message", "content": content}])
        self.settled(session)
        [said] = only(self.events(session), "user.message")
        self.assertEqual([block.to_dict(exclude_none=True) for block in said.content], content)
        bad = [{"type": "user.message", "content": [refers("image", notes)]}]
        message = self.refused(anthropic.BadRequestError, events.send, session.id, events=bad)
        self.assertTrue(message.startswith("events[0].content[0].source.file_id: "), message)
        unknown = [{"type": "user.message", "content": [{"type": "image", "source": {"type": "file", "file_id": "file_x"}}]}]
        self.refused(anthropic.NotFoundError, events.send, session.id, events=unknown)

    def test_the_async_client_does_the_same(self):
        async def work():
            async with self.server.async_client() as client:
                session = self.session()
                file = await client.beta.files.upload(file=("n.txt", b"later"))
                resources = client.beta.sessions.resources
                added = await resources.add(session.id, type="file", file_id=file.id)
                self.assertEqual([one async for one in await resources.list(session.id)], [added])
                self.assertEqual(await resources.retrieve(added.id, session_id=session.id), added)
                await resources.delete(added.id, session_id=session.id)
                self.assertEqual([one async for one in await resources.list(session.id)], [])

        within(work())
