"""Files: checklist 140, 142, 143."""

import contextlib
import sqlite3

import anthropic

from harness import Case, Server, within


class Files(Case):
    def test_140_upload_metadata_list_download_delete(self):
        files = self.beta.files
        made = files.upload(file=("a/b/notes.txt", b"hello", "text/plain"))
        self.assertEqual((made.type, made.filename, made.mime_type, made.size_bytes), ("file", "notes.txt", "text/plain", 5))
        self.assertEqual(files.retrieve_metadata(made.id), made)
        self.assertIn(made, list(files.list()))
        self.assertEqual(files.download(made.id).read(), b"hello")
        deleted = files.delete(made.id)
        self.assertEqual((deleted.id, deleted.type), (made.id, "file_deleted"))
        self.refused(anthropic.NotFoundError, files.retrieve_metadata, made.id)
        self.refused(anthropic.NotFoundError, files.delete, made.id)

    def test_the_stable_alias_reaches_the_same_files(self):
        made = self.client.files.upload(file=("x.json", b"{}"))
        self.assertEqual(made.mime_type, "application/json")
        self.assertEqual(self.beta.files.retrieve_metadata(made.id).id, made.id)

    def test_142_expiry_is_bounded(self):
        upload = self.beta.files.upload
        made = upload(file=("x", b"x"), expires_in_seconds=3600)
        self.assertEqual((made.expires_at - made.created_at).total_seconds(), 3600)
        for seconds in (0, 3599, 7776001):
            message = self.refused(anthropic.BadRequestError, upload, file=("x", b"x"), expires_in_seconds=seconds)
            self.assertTrue(message.startswith("expires_in_seconds: "), message)

    def test_142_a_file_whose_time_is_over_is_gone(self):
        served = Server()
        self.addCleanup(served.close)
        with served.client() as client:
            made = client.beta.files.upload(file=("x", b"x"), expires_in_seconds=3600)
        served.stop()
        # Nobody waits an hour: it was made two hours ago instead.
        with contextlib.closing(sqlite3.connect(served.dir / "data" / "casemate.db")) as db, db:
            earlier = db.execute("UPDATE record SET created_at = created_at - 7200000 WHERE id = ?", [made.id])
            self.assertEqual(earlier.rowcount, 1)
        served.start()
        with served.client() as client:
            for use in (client.beta.files.retrieve_metadata, client.beta.files.download):
                with self.assertRaises(anthropic.NotFoundError) as caught:
                    use(made.id)
                self.assertEqual(caught.exception.body["error"]["details"]["error_code"], "file_expired")
            self.assertEqual(list(client.beta.files.list()), [])

    def test_143_ids_choose(self):
        files = self.beta.files
        ids = [files.upload(file=(f"{n}.txt", b"x")).id for n in range(3)]
        found = list(files.list(ids=[ids[0], "file_unknown", ids[2]]))
        self.assertEqual({file.id for file in found}, {ids[0], ids[2]})
        self.refused(anthropic.BadRequestError, files.list, ids=[f"file_{n}" for n in range(101)])
        self.refused(anthropic.BadRequestError, files.list, ids=ids, limit=5)

    def test_lists_are_walked_page_by_page(self):
        ids = [self.beta.files.upload(file=(f"{n}.txt", b"x")).id for n in range(5)]
        walked = []
        for file in self.beta.files.list(limit=2):
            walked.append(file.id)
            if len(walked) == 5:
                break
        self.assertEqual(walked, ids[::-1])

    def test_the_async_client_does_the_same(self):
        async def work():
            async with self.server.async_client() as client:
                made = await client.beta.files.upload(file=("n.txt", b"later"))
                content = await client.beta.files.download(made.id)
                self.assertEqual(await content.read(), b"later")
                self.assertEqual((await client.beta.files.retrieve_metadata(made.id)).size_bytes, 5)
                self.assertIn(made.id, [file.id async for file in client.beta.files.list()])
                await client.beta.files.delete(made.id)

        within(work())
